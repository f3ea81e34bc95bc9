-- Networks from which somebody has signed in to an account: their sign-ins are not counted with strangers'.
-- depends: 0009.scrub

CREATE TABLE known_network (
    user_id BINARY(16) NOT NULL,
    network BINARY(16) NOT NULL,
    seen_at DATETIME(6) NOT NULL,
    PRIMARY KEY (user_id, network),
    KEY known_network_newest (user_id, seen_at),
    KEY known_network_seen (seen_at),
    CONSTRAINT known_network_user_fk FOREIGN KEY (user_id) REFERENCES user (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
