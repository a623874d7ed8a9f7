-- A machine that connects again has one row; without this its older one was looked for in all rows
-- of a build, once for each machine of a report.
CREATE INDEX model_states_machine ON registry.model_states (build, machine);
