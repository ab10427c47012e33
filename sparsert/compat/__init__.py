"""Other projects' interfaces to sparsert, one module each; nothing here is imported unasked."""
