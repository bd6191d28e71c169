"""The simulated lab: a machine whose truth is known, and the instruments it shows on disk."""
