"""Training of the learned triangulation: recipes, steps, validation, checkpoints, model cards."""
