"""Stories in which each alert fires, and others in which it must not."""

from tests.contract.deploy.manifests import ROOMS

OUTCOME = 'darkbloom_request_outcomes_total{job="gateway", model="m", class="%s"}'
PROVIDERS = 'darkbloom_providers{job="router", state="online", trust="%s"}'
WARM = 'darkbloom_warm_pool_machines{job="router", model="m", which="warm"}'
TTFT = 'darkbloom_ttft_seconds_bucket{job="gateway", model="m", le="%s"}'
DECODE = 'darkbloom_decode_tokens_per_second%s{job="gateway", model="m"%s}'
HTTP = 'darkbloom_http_requests_total{job="gateway", status="%d"}'
SUSPECTED = 'darkbloom_provider_suspected_total{job="router", model="m", kind="%s"}'
PUSH_END = 'darkbloom_device_manager_push_certificate_expiry_seconds{job="attestation"}'
FAILED = 'darkbloom_attestation_failures_total{job="router", reason="%s"}'
CHALLENGES = 'darkbloom_attestation_challenges_total{job="router", outcome="%s"}'
EVIDENCE = 'darkbloom_release_evidence_total{job="attestation", outcome="%s"}'
ROUTER = 'darkbloom_build_info{job="router", version="1", commit="%s", instance="%s"}'
POSTGRES = '%s{namespace="darkbloom", pod="postgres-1"}'
PRIMARY = POSTGRES % "cnpg_pg_replication_in_recovery"
ARCHIVER = POSTGRES.replace("%s", "cnpg_pg_stat_archiver_%s")
BACKUP = POSTGRES.replace("%s", "barman_cloud_cloudnative_pg_io_last_%s_timestamp")
VOLUME = 'kubelet_volume_stats_%s_bytes{namespace="darkbloom", persistentvolumeclaim="postgres-1"}'
CERTIFICATE = (
    "certmanager_certificate_expiration_timestamp_seconds"
    '{exported_namespace="darkbloom", name="%s"}'
)
SERVED = 'darkbloom_rpc_served_total{job="billing", method="s/a", status="%s"}'
SINK = 'darkbloom_telemetry_sink_%s_total{job="router", sink="routing"}'
STREAMS = "darkbloom_provider_streams"
DECIDED = 'darkbloom_routing_decisions_total{job="router", model="m", outcome="%s"}'
ASKED = DECIDED % "selected"

# What happens, minute by minute (promtool's notation); which alert; when; whether it fires.
STORIES = {
    "one in ten fails": (
        {OUTCOME % "success": "0+90x120", OUTCOME % "provider_5xx": "0+10x120"},
        ("RequestsFailFast", "2h", True),
    ),
    "one in a thousand fails": (
        {OUTCOME % "success": "0+999x120", OUTCOME % "provider_5xx": "0+1x120"},
        ("RequestsFailFast", "2h", False),
    ),
    "nothing fails and refusals do not count": (
        {OUTCOME % "success": "0+10x120", OUTCOME % "rate_limited": "0+90x120"},
        ("RequestsFailFast", "2h", False),
    ),
    "a third of the streams leaves at once": (
        {STREAMS: "300x20 200x20", ROUTER % ("a", "1"): "1x40"},
        ("FleetDrop", "23m", True),
    ),
    "a third leaves within an hour": (
        {STREAMS: "300-2x60"},
        ("FleetDrop", "45m", False),
    ),
    "half of the hardware trust goes": (
        {PROVIDERS % "hardware": "90x20 45x20", PROVIDERS % "self_signed": "10x20 55x20"},
        ("TrustCollapse", "24m", True),
    ),
    "all hardware trust goes, and its series with it": (
        {PROVIDERS % "hardware": "90x20 stale", PROVIDERS % "self_signed": "10x20 100x20"},
        ("TrustCollapse", "24m", True),
    ),
    "a model is asked for and nobody holds it": (
        {WARM: "0x30", ASKED: "0+5x30"},
        ("NoCapacity", "20m", True),
    ),
    "nobody is chosen, and no router says who holds it": (
        {DECIDED % "no_provider": "0+5x30"},
        ("NoCapacity", "20m", True),
    ),
    "most are refused, and some are served": (
        {DECIDED % "queue_full": "0+5x30", DECIDED % "selected": "0+1x30"},
        ("NoCapacity", "20m", False),
    ),
    "nobody holds it and nobody asks": (
        {WARM: "0x30", ASKED: "7x30"},
        ("NoCapacity", "20m", False),
    ),
    "a cent is missing": (
        {'darkbloom_billing_ledger_imbalance_micros{job="billing"}': "0x5 -10000x5"},
        ("BooksDoNotBalance", "8m", True),
    ),
    "no billing can be scraped": (
        {
            'up{job="billing", instance="a"}': "1x5 0x10",
            **{f'up{{job="{room}"}}': "1x20" for room in ROOMS if room != "billing"},
        },
        ("RoomDown", "12m", True),
    ),
    "one of two replicas is down": (
        {
            'up{job="billing", instance="a"}': "1x5 0x10",
            'up{job="billing", instance="b"}': "1x20",
            **{f'up{{job="{room}"}}': "1x20" for room in ROOMS if room != "billing"},
        },
        ("RoomDown", "12m", False),
    ),
    "a certificate was not renewed": (
        {'darkbloom_tls_certificate_expiry_seconds{job="router"}': "14000x30"},
        ("RoomCertificateExpires", "20m", True),
    ),
    "a router stays at an old catalog": (
        {
            'darkbloom_catalog_generation{job="registry"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="router", instance="a"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="router", instance="b"}': "7x26",
        },
        ("CatalogLags", "9m", True),
    ),
    "every router follows within a minute": (
        {
            'darkbloom_catalog_generation{job="registry"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="router"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="gateway"}': "7x5 8x20",
        },
        ("CatalogLags", "9m", False),
    ),
    "a rollout waits for attempts that nobody makes": (
        {'darkbloom_rollout_overdue_seconds{job="registry", model="m"}': "0+60x60"},
        ("RolloutStuck", "40m", True),
    ),
    "a rollout soaks": (
        {'darkbloom_rollout_overdue_seconds{job="registry", model="m"}': "0x60"},
        ("RolloutStuck", "40m", False),
    ),
    "a third of the machines cannot fetch a build": (
        {
            f'darkbloom_model_prefetch_providers{{job="registry", model="m", state="{state}"}}': row
            for state, row in {"failed": "5x30", "verified": "10x30"}.items()
        },
        ("FetchesFail", "20m", True),
    ),
    "routers differ from the full scan": (
        {'darkbloom_routing_audits_total{job="router", outcome="disagreed"}': "0x5 1x60"},
        ("RoutingDisagrees", "20m", True),
    ),
    "one in a hundred fails all day": (
        {OUTCOME % "success": "0+98x1600", OUTCOME % "provider_5xx": "0+2x1600"},
        ("RequestsFailSlowly", "26h", True),
    ),
    "the edge fails": (
        {HTTP % 200: "0+90x120", HTTP % 500: "0+10x120"},
        ("EdgeFailsFast", "2h", True),
    ),
    "the edge fails a little, all day": (
        {HTTP % 200: "0+99x1600", HTTP % 500: "0+1x1600"},
        ("EdgeFailsSlowly", "26h", True),
    ),
    "nothing is answered": (
        {
            'darkbloom_requests_received_total{job="gateway", endpoint="messages"}': "0+10x30",
            OUTCOME % "success": "100x30",
            OUTCOME % "timeout": "0+10x30",
        },
        ("AnswersStop", "20m", True),
    ),
    "everything is refused for pace": (
        {
            'darkbloom_requests_received_total{job="gateway", endpoint="messages"}': "0+10x30",
            OUTCOME % "rate_limited": "0+10x30",
        },
        ("AnswersStop", "20m", False),
    ),
    "the prober gets no answer": (
        {'darkbloom_synthetic_success_seconds{job="darkbloom/prober"}': "0+60x10 600x20"},
        ("SyntheticFails", "20m", True),
    ),
    "the prober is gone": ({}, ("SyntheticFails", "10m", True)),
    "the prober is answered": (
        {'darkbloom_synthetic_success_seconds{job="darkbloom/prober"}': "0+60x40"},
        ("SyntheticFails", "20m", False),
    ),
    "half of the answers begin after ten seconds": (
        {TTFT % "10.0": "0+5x60", TTFT % "15.0": "0+10x60", TTFT % "+Inf": "0+10x60"},
        ("FirstContentLate", "40m", True),
    ),
    "begun answers break": (
        {OUTCOME % "success": "0+90x120", OUTCOME % "mid_stream": "0+10x120"},
        ("StreamsBreak", "2h", True),
    ),
    "half of the answers crawl": (
        {
            DECODE % ("_bucket", ', le="15.0"'): "0+5x120",
            DECODE % ("_count", ""): "0+10x120",
        },
        ("DecodeBelowFloor", "2h", True),
    ),
    "somebody waits for a minute": (
        {'darkbloom_queue_oldest_age_seconds{job="router", model="m"}': "60x30"},
        ("QueueOld", "20m", True),
    ),
    "a third of the streams moves while routers are replaced": (
        {STREAMS: "300x20 200x20", ROUTER % ("a", "1"): "1x40", ROUTER % ("b", "2"): "1x40"},
        ("FleetDrop", "23m", False),
    ),
    "nearly all streams go while routers are replaced": (
        {STREAMS: "300x20 50x20", ROUTER % ("a", "1"): "1x40", ROUTER % ("b", "2"): "1x40"},
        ("FleetDrop", "23m", True),
    ),
    "an edge catches a machine": (
        {SUSPECTED % "counts": "0x5 1x60"},
        ("ProvidersLie", "10m", True),
    ),
    "machines run out of memory": (
        {SUSPECTED % "memory_pressure": "0+2x60"},
        ("MachinesStruggle", "20m", True),
    ),
    "machines that run out of memory do not lie": (
        {SUSPECTED % "memory_pressure": "0+2x60"},
        ("ProvidersLie", "20m", False),
    ),
    "a machine has other weights": (
        {FAILED % "weight_hash_mismatch": "0x5 1x60"},
        ("HashMismatch", "10m", True),
    ),
    "a machine is late with a challenge": (
        {FAILED % "stale": "0x5 1x60"},
        ("HashMismatch", "10m", False),
    ),
    "the device manager forgot everybody": (
        {
            'darkbloom_device_questions_total{job="attestation", outcome="not_enrolled"}': (
                "0+2x80 0+100x40"
            )
        },
        ("DevicesUnknown", "110m", True),
    ),
    "as many strangers as an hour ago": (
        {'darkbloom_device_questions_total{job="attestation", outcome="not_enrolled"}': "0+20x120"},
        ("DevicesUnknown", "110m", False),
    ),
    "a version of the agent is held": (
        {'darkbloom_held_releases{job="attestation"}': "0x5 1x60"},
        ("ReleaseHeld", "20m", True),
    ),
    "a held version was resumed": (
        {'darkbloom_held_releases{job="attestation"}': "1x5 0x60"},
        ("ReleaseHeld", "20m", False),
    ),
    "the push certificate ends in 29 days": (
        {PUSH_END: "2505600x120"},
        ("PushCertificateExpires", "70m", True),
    ),
    "the push certificate was renewed": (
        {PUSH_END: "2505600x20 34128000x100"},
        ("PushCertificateExpires", "90m", False),
    ),
    "a replica does not know the push certificate yet": (
        {PUSH_END: "0x120"},
        ("PushCertificateExpires", "90m", False),
    ),
    "the key that signs pushes was revoked": (
        {'darkbloom_code_attest_total{job="attestation", outcome="credentials"}': "0x5 0+2x60"},
        ("PushesRefused", "30m", True),
    ),
    "devices left and their tokens with them": (
        {'darkbloom_code_attest_total{job="attestation", outcome="token_gone"}': "0x5 0+9x60"},
        ("PushesRefused", "30m", False),
    ),
    "nobody is challenged any more": (
        {'darkbloom_challenge_oldest_age_seconds{job="router"}': "0+60x30"},
        ("TrustStale", "20m", True),
    ),
    "one machine in ten runs code that nobody blessed": (
        {EVIDENCE % "known": "0+9x60", EVIDENCE % "unknown": "0+1x60"},
        ("UnknownCode", "30m", True),
    ),
    "a third of the challenges fails": (
        {CHALLENGES % "passed": "0+2x60", CHALLENGES % "failed": "0+1x60"},
        ("ChallengesFail", "45m", True),
    ),
    "machines are taken out for faults": (
        {'darkbloom_breaker_transitions_total{job="router", model="m", kind="breaker"}': "0+1x60"},
        ("BreakersOpen", "30m", True),
    ),
    "cancels are not answered": (
        {
            'darkbloom_cancel_total{job="router", cause="client_gone", outcome="sent"}': "0+10x120",
            'darkbloom_no_terminal_after_cancel_total{job="router", model="m"}': "0+1x120",
        },
        ("CancelsUnanswered", "2h", True),
    ),
    "holds stay past their lease": (
        {'darkbloom_billing_holds_overdue{job="billing"}': "3x60"},
        ("HoldsOverdue", "30m", True),
    ),
    "settlements are refused": (
        {'darkbloom_billing_settlements_total{job="billing", result="rejected_price"}': "0+1x60"},
        ("SettlementsRejected", "30m", True),
    ),
    "Stripe holds less than we believe": (
        {'darkbloom_billing_stripe_drift_micros{job="billing"}': "-5000000x120"},
        ("StripeDrift", "90m", True),
    ),
    "a withdrawal hangs": (
        {'darkbloom_billing_withdrawals_overdue{job="billing"}': "0x5 1x60"},
        ("WithdrawalsOverdue", "10m", True),
    ),
    "owed work waits": (
        {'darkbloom_billing_outbox_age_seconds{job="billing"}': "0+60x60"},
        ("OwedWorkWaits", "40m", True),
    ),
    "no backup was ever found sound": (
        {'darkbloom_billing_backup_verified_timestamp_seconds{job="billing"}': "0x13100"},
        ("BackupNotVerified", "13100m", True),
    ),
    "one replica of billing has not looked yet, another has": (
        {
            'darkbloom_billing_backup_verified_timestamp_seconds{instance="a"}': "0x13100",
            'darkbloom_billing_backup_verified_timestamp_seconds{instance="b"}': "600000x13100",
        },
        ("BackupNotVerified", "13100m", False),
    ),
    "somebody forges webhooks": (
        {'darkbloom_billing_stripe_events_total{job="billing", outcome="forged"}': "0+1x60"},
        ("WebhooksRefused", "30m", True),
    ),
    "one of two replicas stays down": (
        {'up{job="billing", instance="a"}': "0x30", 'up{job="billing", instance="b"}': "1x30"},
        ("ReplicaDown", "20m", True),
    ),
    "an event loop is late": (
        {
            'darkbloom_loop_lag_seconds_bucket{job="gateway", le="0.25"}': "0+1x60",
            'darkbloom_loop_lag_seconds_bucket{job="gateway", le="1.0"}': "0+9x60",
            'darkbloom_loop_lag_seconds_bucket{job="gateway", le="+Inf"}': "0+9x60",
        },
        ("EventLoopLate", "30m", True),
    ),
    "a store is away": (
        {
            SERVED % "ok": "0+8x60",
            SERVED % "unavailable": "0+2x60",
        },
        ("StoreUnavailable", "30m", True),
    ),
    "callers leave, at deadlines and in rollouts, and no store is away": (
        {SERVED % "ok": "0+8x60", SERVED % "cancelled": "0+2x60"},
        ("StoreUnavailable", "30m", False),
    ),
    "one caller in five gives up": (
        {SERVED % "ok": "0+8x60", SERVED % "cancelled": "0+2x60"},
        ("CallsAbandoned", "30m", True),
    ),
    "watches end": (
        {SERVED % "ok": "0+8x60", SERVED.replace("/a", "/WatchKeys") % "cancelled": "0+8x60"},
        ("CallsAbandoned", "30m", False),
    ),
    "one record in ten is lost": (
        {SINK % "written": "0+9x120", SINK % "dropped": "0+1x120"},
        ("TelemetryDropped", "90m", True),
    ),
    "one record in ten thousand is lost": (
        {SINK % "written": "0+9999x120", SINK % "dropped": "0+1x120"},
        ("TelemetryDropped", "90m", False),
    ),
    "no record arrives at all": (
        {SINK % "dropped": "0+1x120"},
        ("TelemetryDropped", "90m", True),
    ),
    "a room says a word that is not in its list": (
        {'darkbloom_labels_folded_total{job="router", metric="x"}': "0x5 1x60"},
        ("LabelsFolded", "10m", True),
    ),
    "two versions run for hours": (
        {
            'darkbloom_build_info{job="billing", version="1", commit="a"}': "1x180",
            'darkbloom_build_info{job="billing", version="2", commit="b"}': "1x180",
        },
        ("VersionsMixed", "2h", True),
    ),
    "a caller may not": (
        {'darkbloom_callers_refused_total{job="billing", method="a", caller="router"}': "0+1x60"},
        ("CallersRefused", "30m", True),
    ),
    "a public certificate ends": (
        {
            CERTIFICATE % "edge": "100000x180",
        },
        ("CertificateExpires", "2h", True),
    ),
    "a standby is behind": (
        {'cnpg_pg_replication_lag{namespace="darkbloom"}': "60x60"},
        ("ReplicaLags", "20m", True),
    ),
    "a statement waits": (
        {POSTGRES % "cnpg_locks_longest_wait_seconds": "45x60"},
        ("LocksWait", "20m", True),
    ),
    "statements wait a little, one after another": (
        {POSTGRES % "cnpg_locks_longest_wait_seconds": "2x60"},
        ("LocksWait", "20m", False),
    ),
    "the archive fails": (
        {
            PRIMARY: "0x60",
            ARCHIVER % "last_archived_time": "60x60",
            ARCHIVER % "last_failed_time": "-1x10 900x50",
        },
        ("ArchiveFails", "30m", True),
    ),
    "the archive has failed once and goes on": (
        {
            PRIMARY: "0x60",
            ARCHIVER % "last_archived_time": "0+60x60",
            ARCHIVER % "last_failed_time": "30x60",
        },
        ("ArchiveFails", "30m", False),
    ),
    "a standby remembers that it failed when it was the primary": (
        {
            PRIMARY: "1x60",
            ARCHIVER % "last_archived_time": "60x60",
            ARCHIVER % "last_failed_time": "900x60",
        },
        ("ArchiveFails", "30m", False),
    ),
    "nothing is archived": (
        {PRIMARY: "0x90", ARCHIVER % "seconds_since_last_archival": "0+60x90"},
        ("ArchiveLate", "50m", True),
    ),
    "no backup was ever made": (
        {BACKUP % "available_backup": "0x1800"},
        ("BackupOld", "27h", True),
    ),
    "a backup is made every night": (
        {BACKUP % "available_backup": "0x1440 86400x400"},
        ("BackupOld", "30h", False),
    ),
    "tonight's backup failed": (
        {BACKUP % "available_backup": "100x60", BACKUP % "failed_backup": "0x20 1200x40"},
        ("BackupOld", "40m", True),
    ),
    "a volume fills": (
        {VOLUME % "used": "85x60", VOLUME % "capacity": "100x60"},
        ("VolumeFills", "20m", True),
    ),
    "half a volume is free": (
        {VOLUME % "used": "50x60", VOLUME % "capacity": "100x60"},
        ("VolumeFills", "20m", False),
    ),
    "a volume is full": (
        {VOLUME % "used": "97x60", VOLUME % "capacity": "100x60"},
        ("VolumeFull", "10m", True),
    ),
    "one router does not reach Valkey": (
        {
            'darkbloom_valkey_up{job="router", instance="a"}': "1x5 0x20",
            'darkbloom_valkey_up{job="router", instance="b"}': "1x25",
        },
        ("ValkeyAway", "15m", True),
    ),
    "Valkey restarts": (
        {'darkbloom_valkey_up{job="router", instance="a"}': "1x5 0x1 1x20"},
        ("ValkeyAway", "15m", False),
    ),
    "nobody scrapes PostgreSQL": (
        {
            VOLUME % "capacity": "100x60",
            BACKUP % "available_backup": "0x60",
            CERTIFICATE % "edge": "100000x60",
        },
        ("ScrapesMissing", "50m", True),
    ),
    "all is well": ({}, ("DeadMan", "10m", True)),
}
