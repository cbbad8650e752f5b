"""Neural network modules shared by the decomposition models and the predictors."""
