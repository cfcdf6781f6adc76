"""What users get: the exported model, and the HTTP server over exported models."""
