"""A local web page to explore a trained run: `expost explore RUN`."""
