"""Teachers: whatever yields the batch, the rate and the momentum of inner step t."""
