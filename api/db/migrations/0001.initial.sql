-- Users, sessions, files, blobs, uploads. Ids are UUIDv7 (16 bytes), digests SHA-256 (32 bytes), times UTC.
-- The subset of SQL that MariaDB 10.6+ and MySQL 8 share.

-- What is true of this deployment: its id is the prefix of every object key.
CREATE TABLE deployment (
    name       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    value      VARCHAR(255) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE user (
    id            BINARY(16) NOT NULL PRIMARY KEY,
    username      VARCHAR(64) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    role          VARCHAR(16) NOT NULL,
    tier          VARCHAR(32) NOT NULL,
    generation    INT UNSIGNED NOT NULL DEFAULT 0,
    disabled_at   DATETIME(6) NULL,
    created_at    DATETIME(6) NOT NULL,
    UNIQUE KEY user_username (username)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row a signed-in client; refresh_hash is the newest refresh token's, an older one ends the session.
CREATE TABLE session (
    id            BINARY(16) NOT NULL PRIMARY KEY,
    user_id       BINARY(16) NOT NULL,
    refresh_hash  BINARY(32) NOT NULL,
    created_at    DATETIME(6) NOT NULL,
    refreshed_at  DATETIME(6) NOT NULL,
    expires_at    DATETIME(6) NOT NULL,
    ended_at      DATETIME(6) NULL,
    KEY session_user (user_id, ended_at),
    KEY session_expires (expires_at),
    CONSTRAINT session_user_fk FOREIGN KEY (user_id) REFERENCES user (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One unique content. state: unverified, verified, corrupt, deleting. scope: zeros, or the user whose alone it is.
CREATE TABLE `blob` (
    id          BINARY(16) NOT NULL PRIMARY KEY,
    size        BIGINT UNSIGNED NOT NULL,
    digest      BINARY(32) NOT NULL,
    scope       BINARY(16) NOT NULL,
    state       VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    sha256      BINARY(32) NULL,
    created_at  DATETIME(6) NOT NULL,
    verified_at DATETIME(6) NULL,
    KEY blob_state (state, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The SHA-256 of each part in order, 32 bytes each: what verifying, scrubbing and transfers compare with.
CREATE TABLE blob_parts (
    blob_id BINARY(16) NOT NULL PRIMARY KEY,
    hashes  MEDIUMBLOB NOT NULL,
    CONSTRAINT blob_parts_blob_fk FOREIGN KEY (blob_id) REFERENCES `blob` (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which verified blob stands for a digest: the row that instant uploads and merges look up.
CREATE TABLE blob_digest (
    digest  BINARY(32) NOT NULL,
    scope   BINARY(16) NOT NULL,
    blob_id BINARY(16) NOT NULL,
    PRIMARY KEY (digest, scope),
    KEY blob_digest_blob (blob_id),
    CONSTRAINT blob_digest_blob_fk FOREIGN KEY (blob_id) REFERENCES `blob` (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Where a blob's bytes lie.
CREATE TABLE replica (
    blob_id    BINARY(16) NOT NULL,
    storage    VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (blob_id, storage),
    UNIQUE KEY replica_object (storage, object_key),
    CONSTRAINT replica_blob_fk FOREIGN KEY (blob_id) REFERENCES `blob` (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A user's named entry. folder_id: zeros are the root. link_generation: links signed with it or less end at trash.
CREATE TABLE file (
    id              BINARY(16) NOT NULL PRIMARY KEY,
    user_id         BINARY(16) NOT NULL,
    folder_id       BINARY(16) NOT NULL,
    name            VARCHAR(255) NOT NULL,
    blob_id         BINARY(16) NOT NULL,
    content_type    VARCHAR(255) NOT NULL,
    link_generation INT UNSIGNED NOT NULL DEFAULT 1,
    created_at      DATETIME(6) NOT NULL,
    updated_at      DATETIME(6) NOT NULL,
    trashed_at      DATETIME(6) NULL,
    KEY file_newest (user_id, trashed_at, id),
    KEY file_by_name (user_id, trashed_at, name, id),
    KEY file_blob (blob_id, user_id),
    KEY file_trashed (trashed_at),
    CONSTRAINT file_user_fk FOREIGN KEY (user_id) REFERENCES user (id),
    CONSTRAINT file_blob_fk FOREIGN KEY (blob_id) REFERENCES `blob` (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- An upload. state: proving, uploading, finalizing, done, failed, aborted, expired.
-- open_key: what makes "the same unfinished upload" the same; NULL once it has ended, and where nothing names it.
-- object_key is committed here before anything is stored under it.
CREATE TABLE upload (
    id                   BINARY(16) NOT NULL PRIMARY KEY,
    user_id              BINARY(16) NOT NULL,
    state                VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name                 VARCHAR(255) NOT NULL,
    folder_id            BINARY(16) NOT NULL,
    content_type         VARCHAR(255) NOT NULL,
    size                 BIGINT UNSIGNED NOT NULL,
    digest               BINARY(32) NULL,
    part_size            BIGINT UNSIGNED NOT NULL,
    part_count           SMALLINT UNSIGNED NOT NULL,
    storage              VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object_key           VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    multipart_id         VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    open_key             BINARY(32) NULL,
    binds_hash           TINYINT(1) NOT NULL,
    nonce                BINARY(16) NULL,
    challenge_expires_at DATETIME(6) NULL,
    received             VARBINARY(1250) NOT NULL DEFAULT '',
    received_at          DATETIME(6) NULL,
    completes            TINYINT UNSIGNED NOT NULL DEFAULT 0,
    lease_owner          BINARY(16) NULL,
    lease_until          DATETIME(6) NULL,
    parts_kept           TINYINT(1) NOT NULL DEFAULT 1,
    file_id              BINARY(16) NULL,
    failure              VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    created_at           DATETIME(6) NOT NULL,
    updated_at           DATETIME(6) NOT NULL,
    expires_at           DATETIME(6) NOT NULL,
    UNIQUE KEY upload_open (open_key),
    UNIQUE KEY upload_object (storage, object_key),
    KEY upload_user (user_id, id),
    KEY upload_user_state (user_id, state),
    KEY upload_expires (state, expires_at),
    KEY upload_ended (state, updated_at),
    KEY upload_parts_kept (parts_kept, state),
    CONSTRAINT upload_user_fk FOREIGN KEY (user_id) REFERENCES user (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A part's hash, written once; signed counts how often a URL was given out for it.
CREATE TABLE upload_part (
    upload_id   BINARY(16) NOT NULL,
    part_number SMALLINT UNSIGNED NOT NULL,
    sha256      BINARY(32) NOT NULL,
    signed      TINYINT UNSIGNED NOT NULL DEFAULT 1,
    PRIMARY KEY (upload_id, part_number),
    CONSTRAINT upload_part_upload_fk FOREIGN KEY (upload_id) REFERENCES upload (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Objects that nothing refers to any more, written in the transaction that dropped the last reference.
CREATE TABLE doomed (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    storage    VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at DATETIME(6) NOT NULL,
    UNIQUE KEY doomed_object (storage, object_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What ends tokens: those of (kind, subject) with this generation or a lower one. Edges read it every second.
CREATE TABLE revocation (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kind       VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject    BINARY(16) NOT NULL,
    generation INT UNSIGNED NOT NULL,
    created_at DATETIME(6) NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    KEY revocation_created (created_at),
    KEY revocation_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
