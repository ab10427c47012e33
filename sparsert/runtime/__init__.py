"""What runs a model: the native core, the NumPy oracle, the fallback, and the Model over them."""
