"""Event files that TensorBoard's own writer wrote, for tests of what reads them."""

from __future__ import annotations

import base64

PLAIN_EVENTS = base64.b64decode(
    "SAAAAAAAAAD+kkidCcKD47RHwNpBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50"
    "X2ZpbGVfd3JpdGVyh867YBwAAAAAAAAAyMGVHQkAABCohIzZQSoRCg8KCGFjY3VyYWN5FQAAAD+nDsoqHgAAAAAAAADZ3BIy"
    "CQAAUKiEjNlBEAEqEQoPCghhY2N1cmFjeRVmZmY/ImpkxR4AAAAAAAAA2dwSMgkAAJCohIzZQRACKhEKDwoIYWNjdXJhY3kV"
    "MzMzPxuKkbEYAAAAAAAAAKN/SyIJAAAQqISM2UEqDQoLCgRsb3NzFQAAwH83+VnS"
)
"""`accuracy` 0.5, 0.9, 0.7 and `loss` NaN, as plain values."""

TENSOR_EVENTS = base64.b64decode(
    "SAAAAAAAAAD+kkidCX84f8JHwNpBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50"
    "X2ZpbGVfd3JpdGVymseGPS4AAAAAAAAAxctX+gkAABCohIzZQSojCiEKCGFjY3VyYWN5QggIASoEAAAAP0oLCgkKB3NjYWxh"
    "cnPCeIoSMAAAAAAAAACV9dBfCQAAUKiEjNlBEAEqIwohCghhY2N1cmFjeUIICAEqBGZmZj9KCwoJCgdzY2FsYXJz74+vuA=="
)
"""`accuracy` 0.5, 0.9, as tensors."""
