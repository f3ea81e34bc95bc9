-- A replica that could not be read is told apart from one that is known to be lost.
-- depends: 0009.scrub

-- suspect: why an edge could not read it, until a job has looked (missing, length, cut, error, timeout).
-- missing_at: the object is not there, or has another length than the blob: seen twice. Nobody is sent to it.
ALTER TABLE replica ADD COLUMN suspect VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NULL;
