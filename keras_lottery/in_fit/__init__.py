"""What changes inside one `fit`: callbacks, learned masks, shared weights."""
