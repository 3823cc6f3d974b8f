"""The way to the city's platform: topics, payloads, the MQTT client."""
