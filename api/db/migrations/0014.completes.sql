-- What is known of completes that were sent to a storage: a lost answer proves nothing.
-- depends: 0009.scrub

-- completes_sent: completes that may have reached the storage; counted before they are sent, so that a crash knows.
-- copy_key: where the object is brought after a doubtful complete; committed here before anything is stored under it.
ALTER TABLE upload
    ADD COLUMN completes_sent TINYINT UNSIGNED NOT NULL DEFAULT 0,
    ADD COLUMN copy_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD UNIQUE KEY upload_copy (storage, copy_key);

-- complete_stage, of the copy's object: 0 not begun, 1 a complete may have been sent, 2 it is there for good.
ALTER TABLE transfer_item ADD COLUMN complete_stage TINYINT UNSIGNED NOT NULL DEFAULT 0;
ALTER TABLE healing ADD COLUMN complete_stage TINYINT UNSIGNED NOT NULL DEFAULT 0;

-- What was under way before this was counted may have been sent.
UPDATE upload SET completes_sent = 1 WHERE state = 'finalizing';
UPDATE transfer_item SET complete_stage = 1 WHERE begun = 1 AND phase = 'copy';
UPDATE healing SET complete_stage = 1;
