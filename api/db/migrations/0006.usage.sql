-- Who has moved how many bytes on which day (UTC), as the edges report it.
-- depends: 0002.verification

CREATE TABLE usage_day (
    kind     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject  BINARY(16) NOT NULL,
    day      DATE NOT NULL,
    sent     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    received BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, subject, day),
    KEY usage_day_day (day)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which reports were booked: an edge that got no answer sends one again.
CREATE TABLE usage_report (
    edge      BINARY(16) NOT NULL,
    sequence  BIGINT UNSIGNED NOT NULL,
    booked_at DATETIME(6) NOT NULL,
    PRIMARY KEY (edge, sequence),
    KEY usage_report_booked (booked_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
