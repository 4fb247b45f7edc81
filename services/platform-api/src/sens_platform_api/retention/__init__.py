"""How long what is kept, and the deletion of what is older."""
