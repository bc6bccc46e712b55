"""Any folder of videos -> shards that the trainers read: items, stages, packing, reading."""
