"""tpv as scikit-learn knows it: an estimator that learns to label texts."""
