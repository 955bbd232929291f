"""Networks, pose backends and the registry of model files."""
