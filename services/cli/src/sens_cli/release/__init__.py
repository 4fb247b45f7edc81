"""What releases are made of and how a cluster is asked: versions, the record of a release, kubectl.

It needs Python alone, and imports nothing but itself: programs of tools/release run it without an environment, and the GitOps repository
has a copy.
"""
