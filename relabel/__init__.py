"""Cases that somebody should look at, their labels, and fine-tuning data made of them."""
