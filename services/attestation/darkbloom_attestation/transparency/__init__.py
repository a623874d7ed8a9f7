"""The transparency log: appended in the transaction of each change, proven to strangers."""
