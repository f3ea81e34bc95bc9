-- Blobs whose bytes have to be read back before anybody but their uploader may use them.
-- depends: 0001.initial

CREATE TABLE verification (
    blob_id     BINARY(16) NOT NULL PRIMARY KEY,
    parts_done  SMALLINT UNSIGNED NOT NULL DEFAULT 0,
    tries       INT UNSIGNED NOT NULL DEFAULT 0,
    lease_owner BINARY(16) NULL,
    lease_until DATETIME(6) NULL,
    created_at  DATETIME(6) NOT NULL,
    KEY verification_lease (lease_until),
    CONSTRAINT verification_blob_fk FOREIGN KEY (blob_id) REFERENCES `blob` (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
