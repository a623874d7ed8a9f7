-- Self-route asks for the machines of an account; the key finds only the account of a machine.
CREATE INDEX provider_link_account ON billing.provider_link (account_id, identity_key);
