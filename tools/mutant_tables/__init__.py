"""The mutants by what they break; tools/mutants.py tries them."""
