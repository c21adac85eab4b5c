-- What a member needs in MySQL or MariaDB, as user `carillon` in the database `carillon`. The server's administrator runs this once.
CREATE DATABASE IF NOT EXISTS carillon CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The password stands in store.mysql.password_file; REQUIRE SSL refuses whoever comes without TLS.
CREATE USER IF NOT EXISTS 'carillon'@'%' IDENTIFIED BY 'change-me' REQUIRE SSL;

-- At work.
GRANT SELECT, INSERT, UPDATE, DELETE ON carillon.* TO 'carillon'@'%';

-- For the first start (all three), and for the first start of a newer version, which adds what it needs while the others work on; may be
-- revoked in between.
GRANT CREATE, ALTER, INDEX ON carillon.* TO 'carillon'@'%';
