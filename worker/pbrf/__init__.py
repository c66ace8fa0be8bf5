"""The proximal Bregman response function: by optimisation, what a damped Gauss-Newton solve should predict."""
