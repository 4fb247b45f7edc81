"""Makes the GitOps repository of an installation from infra/gitops."""
