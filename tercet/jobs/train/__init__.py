"""Training by a recipe: what makes a run, the verb `train`, and what its steps can be asked."""
