-- One row for each thing that ends or changes, written again when it does so again; edges read them by their moment.
-- depends: 0009.scrub

-- kind: session, user, link. Tokens of a generation below this one are over.
CREATE TABLE revocation_row (
    kind       VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject    VARBINARY(16) NOT NULL,
    generation INT UNSIGNED NOT NULL,
    noted_at   DATETIME(6) NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    PRIMARY KEY (kind, subject),
    KEY revocation_noted (noted_at),
    KEY revocation_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO revocation_row
SELECT kind, subject, MAX(generation) + 1, UTC_TIMESTAMP(6), MAX(expires_at) FROM revocation
WHERE kind IN ('session', 'user') AND expires_at > UTC_TIMESTAMP(6) GROUP BY kind, subject;

DROP TABLE revocation;
RENAME TABLE revocation_row TO revocation;

-- What ends every link of an account at once; a link names the sum of this and of its file's.
ALTER TABLE user ADD COLUMN link_generation INT UNSIGNED NOT NULL DEFAULT 0;
