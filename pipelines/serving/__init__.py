"""What users get: an HTTP server over exported models."""
