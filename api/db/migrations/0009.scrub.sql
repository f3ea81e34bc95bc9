-- Stored bytes are read again from time to time; a replica that is not what it should be is written anew.
-- depends: 0005.sweep

UPDATE replica SET checked_at = created_at WHERE checked_at IS NULL;

-- What becomes a replica was compared just before.
ALTER TABLE replica MODIFY checked_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6);

-- A replica that is being written anew: its next object's key is committed here before anything is stored under it.
CREATE TABLE healing (
    blob_id      BINARY(16) NOT NULL,
    storage      VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object_key   VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    upload_id    BINARY(16) NOT NULL,
    multipart_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    binds_hash   TINYINT(1) NOT NULL,
    created_at   DATETIME(6) NOT NULL,
    PRIMARY KEY (blob_id, storage),
    UNIQUE KEY healing_object (storage, object_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
