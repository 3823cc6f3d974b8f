"""kerb_gateway: hears the nodes, buffers every reading in SQLite, forwards it over MQTT."""
