"""kerb_sim: the virtual street: real firmware on virtual boards, in a world with physics."""
