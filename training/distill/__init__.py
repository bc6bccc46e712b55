"""Training of the two small bundled networks: face recogniser (distilled) and face detector (from teacher labels)."""
