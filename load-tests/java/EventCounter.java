import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads every event of some topics as soon as it is readable (read_committed), and tells of each: its topic's number (a byte), the UUID that caused it (16 bytes; zeros if none), and when it was
 * read, in µs since 1970 (8 bytes).
 *
 * <p>Arguments: brokers, topics. Ends when its input does.
 */
public final class EventCounter {
  public static void main(String[] arguments) throws Exception {
    DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
    // For log lines, if there are any.
    System.setOut(System.err);
    Properties config = new Properties();
    config.put("bootstrap.servers", arguments[0]);
    config.put("isolation.level", "read_committed");
    config.put("enable.auto.commit", "false");
    config.put("auto.offset.reset", "earliest");
    config.put("max.poll.records", "5000");
    config.put("key.deserializer", ByteArrayDeserializer.class);
    config.put("value.deserializer", ByteArrayDeserializer.class);
    List<String> topics = List.of(arguments).subList(1, arguments.length);
    Thread parent =
        new Thread(
            () -> {
              try {
                while (System.in.read() >= 0) {}
              } catch (java.io.IOException gone) {
                // As if it had ended.
              }
              Runtime.getRuntime().halt(0);
            });
    parent.setDaemon(true);
    parent.start();
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config)) {
      List<TopicPartition> all = new ArrayList<>();
      for (String topic : topics) {
        consumer.partitionsFor(topic).forEach(one -> all.add(new TopicPartition(topic, one.partition())));
      }
      consumer.assign(all);
      consumer.seekToBeginning(all);
      while (true) {
        var records = consumer.poll(Duration.ofSeconds(1));
        Instant now = Instant.now();
        long us = now.getEpochSecond() * 1_000_000 + now.getNano() / 1_000;
        for (ConsumerRecord<byte[], byte[]> record : records) {
          out.writeByte(topics.indexOf(record.topic()));
          Header cause = record.headers().lastHeader("ce_causationid");
          UUID id = cause == null ? new UUID(0, 0) : UUID.fromString(new String(cause.value(), StandardCharsets.US_ASCII));
          out.writeLong(id.getMostSignificantBits());
          out.writeLong(id.getLeastSignificantBits());
          out.writeLong(us);
        }
        out.flush();
      }
    }
  }
}
