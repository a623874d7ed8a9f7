"""Shared service kit: what every room needs and none of them should write twice.

Clock and errors, configuration, serving and draining, channels, lanes, logs, metrics, traces and
migrations. It knows the contracts of `darkbloom.common.v1` and no room's nouns. Entry rule: two
rooms need it today.
"""
