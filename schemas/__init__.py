"""What is on the wire: ticks, bars, feedback, dead letters, codecs of feeds, errors. Knows no Kafka."""
