import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Sends what it reads by Kafka's own client, at a pace. A record waits until the one before it of the same key is acknowledged; nothing else is
 * awaited. Ends with an error unless everything is acknowledged.
 *
 * <p>Arguments: brokers, topic, records a second, metadata's age in ms. A line of input is a key, a value (hexadecimal), and headers' names and values, with tabs
 * between them. A line of output is the time of sending, ms since 1970, for each line of input, in order.
 */
public final class AwaitingProducer {
  public static void main(String[] arguments) throws Exception {
    String topic = arguments[1];
    long rate = Long.parseLong(arguments[2]);
    Properties config = new Properties();
    config.put("bootstrap.servers", arguments[0]);
    config.put("acks", "all");
    config.put("linger.ms", "5");
    config.put("metadata.max.age.ms", arguments[3]);
    StringBuilder sent = new StringBuilder();
    try (KafkaProducer<String, byte[]> producer =
            new KafkaProducer<>(config, new StringSerializer(), new ByteArraySerializer());
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
      Map<String, Future<RecordMetadata>> last = new HashMap<>();
      producer.partitionsFor(topic);
      long began = System.nanoTime();
      long number = 0;
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        String[] fields = line.split("\t", -1);
        ProducerRecord<String, byte[]> record =
            new ProducerRecord<>(topic, fields[0], HexFormat.of().parseHex(fields[1]));
        for (int at = 2; at < fields.length; at += 2) {
          record.headers().add(fields[at], fields[at + 1].getBytes(StandardCharsets.UTF_8));
        }
        long due = began + number * 1_000_000_000L / rate;
        for (long early = due - System.nanoTime(); early > 0; early = due - System.nanoTime()) {
          LockSupport.parkNanos(early);
        }
        Future<RecordMetadata> before = last.get(fields[0]);
        if (before != null) {
          before.get();
        }
        sent.append(System.currentTimeMillis()).append('\n');
        last.put(fields[0], producer.send(record));
        number++;
      }
      for (Future<RecordMetadata> future : last.values()) {
        future.get();
      }
    }
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    out.print(sent);
    out.flush();
  }
}
