"""`darkbloom-admin`: operators' commands, over gRPC to billing; every write is audited there."""
