"""Storage backends behind one contract (`api.storage.base`). Only the composition root knows them all."""
