"""Background work: rows say what is to do, a queue delivers it, a runner does it."""
