"""The release path: versions, published images, what each environment runs, proposals and rollbacks."""
