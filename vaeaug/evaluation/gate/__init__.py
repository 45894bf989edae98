"""Does synthetic data help? Classifiers with and without it, paired by split, and a verdict."""
