-- Files {first} to {last}, each with its blob, parts, digest, replica and ended upload; half of them are the user's {user}.
-- Ids grow as UUIDv7s do, digests are spread as SHA-256 is. Every tenth file has three parts. Read by growth_rows.py.
INSERT INTO `blob` (id, size, digest, scope, state, sha256, created_at, verified_at)
SELECT UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0b', LEFT(MD5(seq), 14))), IF(seq % 10, 1000, 20000000) + seq,
    UNHEX(SHA2(CONCAT('content ', seq), 256)), REPEAT(CHAR(0), 16), 'verified', UNHEX(SHA2(seq, 256)),
    UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)
FROM seq_{first}_to_{last};

INSERT INTO blob_parts (blob_id, hashes)
SELECT UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0b', LEFT(MD5(seq), 14))),
    REPEAT(UNHEX(SHA2(CONCAT('part ', seq), 256)), IF(seq % 10, 1, 3))
FROM seq_{first}_to_{last};

INSERT INTO blob_digest (digest, scope, blob_id)
SELECT UNHEX(SHA2(CONCAT('content ', seq), 256)), REPEAT(CHAR(0), 16),
    UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0b', LEFT(MD5(seq), 14)))
FROM seq_{first}_to_{last} ORDER BY 1;

INSERT INTO replica (blob_id, storage, object_key, created_at)
SELECT UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0b', LEFT(MD5(seq), 14))), 'local',
    CONCAT('00000000/', LEFT(MD5(seq), 2), '/', LPAD(HEX(seq), 32, '0')), UTC_TIMESTAMP(6)
FROM seq_{first}_to_{last};

INSERT INTO file (id, user_id, folder_id, name, blob_id, content_type, created_at, updated_at)
SELECT UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0f', LEFT(MD5(seq), 14))),
    IF(seq % 2, UNHEX('{user}'), UNHEX(CONCAT('02', LPAD(HEX(seq % 1000), 30, '0')))), REPEAT(CHAR(0), 16),
    CONCAT('file ', LPAD(seq, 8, '0'), '.bin'),
    UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0b', LEFT(MD5(seq), 14))), 'application/octet-stream',
    UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)
FROM seq_{first}_to_{last};

INSERT INTO upload (id, user_id, state, name, folder_id, content_type, size, digest, part_size, part_count, storage,
    object_key, binds_hash, parts_kept, file_id, created_at, updated_at, expires_at)
SELECT UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0a', LEFT(MD5(seq), 14))),
    IF(seq % 2, UNHEX('{user}'), UNHEX(CONCAT('02', LPAD(HEX(seq % 1000), 30, '0')))), 'done', 'file.bin',
    REPEAT(CHAR(0), 16), 'application/octet-stream', 1000 + seq, UNHEX(SHA2(CONCAT('content ', seq), 256)), 8388608, 1,
    'local', CONCAT('00000000/', LEFT(MD5(seq), 2), '/', LPAD(HEX(seq), 32, '0')), 0, 0,
    UNHEX(CONCAT('01', LPAD(HEX(seq), 14, '0'), '0f', LEFT(MD5(seq), 14))), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6),
    UTC_TIMESTAMP(6) + INTERVAL 7 DAY
FROM seq_{first}_to_{last};

-- Unfinished uploads {first_open} to {last_open} of others, with 100 part rows each: as many rows as files.
INSERT INTO upload (id, user_id, state, name, folder_id, content_type, size, part_size, part_count, storage,
    object_key, binds_hash, created_at, updated_at, expires_at)
SELECT UNHEX(CONCAT('03', LPAD(HEX(seq), 30, '0'))), UNHEX(CONCAT('02', LPAD(HEX(seq % 1000), 30, '0'))), 'uploading',
    'open.bin', REPEAT(CHAR(0), 16), 'application/octet-stream', 838860800, 8388608, 100, 'local', CONCAT('open/', seq), 0,
    UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL 6 DAY
FROM seq_{first_open}_to_{last_open};

INSERT INTO upload_part (upload_id, part_number, sha256)
SELECT UNHEX(CONCAT('03', LPAD(HEX(u.seq), 30, '0'))), p.seq, UNHEX(SHA2(CONCAT(u.seq, '/', p.seq), 256))
FROM seq_{first_open}_to_{last_open} u JOIN seq_1_to_100 p;
