-- GET /files?digest looks a user's files up by their content: without this it reads all of them.
-- depends: 0001.initial

ALTER TABLE `blob` ADD KEY blob_by_digest (digest);
