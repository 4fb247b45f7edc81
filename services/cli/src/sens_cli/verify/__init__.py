"""What ``sens verify`` asks an installation, from outside and through kubectl."""
