-- The generation of the settings that a process works by; 0 where it does not say, as an earlier program.
ALTER TABLE eventflow.members ADD COLUMN settings bigint NOT NULL DEFAULT 0;
