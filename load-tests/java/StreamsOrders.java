import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.format.DateTimeFormatterBuilder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The benchmark's rival: orders on Kafka Streams, exactly once. The same commands, the same rules for them, the same events with the same headers, and the same stored
 * state; a store in memory, which is quicker than RocksDB, with its changelog in Kafka. Less is promised than Holdfast does: a command that a producer sends twice is
 * applied twice, nothing is kept that could be listed, and no order can be asked for.
 *
 * <p>Arguments: brokers, application's id, commands topic, events topic, state directory, threads, ms between commits, bytes of the store's cache (0 for none), the producer's linger in ms. Ends when its input does.
 */
public final class StreamsOrders {
  private static final long PRICE = 1999;
  private static final int DRAFT = 1;
  private static final int PLACED = 2;

  public static void main(String[] arguments) throws Exception {
    Properties config = new Properties();
    config.put("bootstrap.servers", arguments[0]);
    config.put("application.id", arguments[1]);
    config.put("processing.guarantee", "exactly_once_v2");
    config.put("state.dir", arguments[4]);
    config.put("num.stream.threads", arguments[5]);
    config.put("commit.interval.ms", arguments[6]);
    config.put("statestore.cache.max.bytes", arguments[7]);
    config.put("replication.factor", "1");
    config.put("consumer.auto.offset.reset", "earliest");
    config.put("consumer.max.poll.records", "5000");
    config.put("producer.batch.size", "262144");
    // A commit sends what waits; until then fuller batches cost less, but a record goes out later.
    config.put("producer.linger.ms", arguments[8]);
    StoreBuilder<KeyValueStore<Bytes, byte[]>> store =
        Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("orders"), Serdes.Bytes(), Serdes.ByteArray());
    if (!arguments[7].equals("0")) {
      store = store.withCachingEnabled();
    }
    Topology topology = new Topology();
    topology.addSource("commands", Serdes.Bytes().deserializer(), Serdes.ByteArray().deserializer(), arguments[2]);
    topology.addProcessor("decide", Orders::new, "commands");
    topology.addStateStore(store, "decide");
    topology.addSink("events", arguments[3], Serdes.Bytes().serializer(), Serdes.ByteArray().serializer(), "decide");
    KafkaStreams streams = new KafkaStreams(topology, config);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          Runtime.getRuntime().halt(1);
          return null;
        });
    streams.start();
    while (System.in.read() >= 0) {}
    // Or the next start would wait for its session to end.
    streams.close(CloseOptions.timeout(Duration.ofSeconds(20)).withGroupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
  }

  /** One command after the other, as the orders context decides them. */
  private static final class Orders implements Processor<Bytes, byte[], Bytes, byte[]> {
    private ProcessorContext<Bytes, byte[]> context;
    private KeyValueStore<Bytes, byte[]> store;

    @Override
    public void init(ProcessorContext<Bytes, byte[]> context) {
      this.context = context;
      this.store = context.getStateStore("orders");
    }

    @Override
    public void process(Record<Bytes, byte[]> record) {
      String id = text(record.headers(), "ce_id");
      String type = text(record.headers(), "ce_type");
      String key = new String(record.key().get(), StandardCharsets.UTF_8);
      UUID.fromString(id);
      if (!key.equals(text(record.headers(), "ce_subject")) || !"1.0".equals(text(record.headers(), "ce_specversion"))) {
        throw new IllegalArgumentException("a record without its envelope: " + id);
      }
      byte[] stored = store.get(record.key());
      Order order = stored == null ? new Order() : Order.of(stored);
      Instant now = Instant.now();
      boolean isJson = text(record.headers(), "content-type").equals("application/json");
      Fields command = isJson ? Fields.ofJson(record.value()) : Fields.of(record.value());
      Writer event = new Writer().text(1, key).bytes(2, time(now));
      String name =
          switch (type) {
            case "holdfast.orders.v1.CreateOrder" -> order.create(command, event, now);
            case "holdfast.orders.v1.AddItem" -> order.add(command, event, now);
            case "holdfast.orders.v1.PlaceOrder" -> order.place(command, event, now);
            default -> throw new IllegalArgumentException("unknown type: " + type);
          };
      order.version++;
      store.put(record.key(), order.bytes());
      Headers headers = new RecordHeaders();
      put(headers, "ce_specversion", "1.0");
      put(headers, "ce_id", newId(now).toString());
      put(headers, "ce_source", "streams/orders/order");
      put(headers, "ce_type", name);
      put(headers, "ce_time", RFC3339.format(now));
      put(headers, "ce_subject", key);
      put(headers, "content-type", "application/protobuf");
      put(headers, "ce_sequence", Long.toString(order.version));
      put(headers, "ce_correlationid", key);
      put(headers, "ce_causationid", id);
      context.forward(new Record<>(record.key(), event.done(), now.toEpochMilli(), headers));
    }

    private static final java.time.format.DateTimeFormatter RFC3339 =
        new DateTimeFormatterBuilder().appendInstant(3).toFormatter();

    private static String text(Headers headers, String name) {
      Header header = headers.lastHeader(name);
      if (header == null) {
        throw new IllegalArgumentException("a record without " + name);
      }
      return new String(header.value(), StandardCharsets.UTF_8);
    }

    private static void put(Headers headers, String name, String value) {
      headers.add(name, value.getBytes(StandardCharsets.UTF_8));
    }

    /** A UUID of version 7. */
    private static UUID newId(Instant now) {
      ThreadLocalRandom random = ThreadLocalRandom.current();
      long high = now.toEpochMilli() << 16 | 0x7000 | random.nextLong() & 0xfff;
      return new UUID(high, random.nextLong() >>> 2 | 1L << 63);
    }
  }

  /** What is stored of an order: the fields of `holdfast.orders.v1.OrderState`, and its version. */
  private static final class Order {
    private String customer = "";
    private String currency = "";
    private long status;
    private final List<Line> lines = new ArrayList<>();
    private String paymentMethod = "";
    private String address = "";
    private byte[] created = {};
    private byte[] updated = {};
    private long version;

    private record Line(String sku, long quantity, long price) {}

    static Order of(byte[] stored) {
      Order order = new Order();
      Fields fields = new Fields(stored);
      while (fields.next()) {
        switch (fields.number) {
          case 1 -> order.customer = fields.text();
          case 2 -> order.currency = fields.text();
          case 3 -> order.status = fields.value;
          case 4 -> {
            Fields line = Fields.of(fields.bytes());
            order.lines.add(new Line(line.text(1), line.number(2), line.number(3)));
          }
          case 7 -> order.paymentMethod = fields.text();
          case 8 -> order.address = fields.text();
          case 9 -> order.created = fields.bytes();
          case 10 -> order.updated = fields.bytes();
          case 15 -> order.version = fields.value;
          default -> throw new IllegalArgumentException("field " + fields.number);
        }
      }
      return order;
    }

    byte[] bytes() {
      Writer to = new Writer().text(1, customer).text(2, currency).number(3, status);
      for (Line line : lines) {
        to.bytes(4, new Writer().text(1, line.sku).number(2, line.quantity).number(3, line.price).done());
      }
      to.text(7, paymentMethod).text(8, address).bytes(9, created).bytes(10, updated);
      return to.number(15, version).done();
    }

    String create(Fields command, Writer event, Instant now) {
      require(status == 0, "ORDER_ALREADY_EXISTS");
      customer = command.text(2);
      currency = command.text(3);
      require(currency.equals("EUR") && !customer.isEmpty(), "INVALID");
      status = DRAFT;
      created = time(now);
      updated = created;
      event.text(3, customer).text(4, currency);
      return "holdfast.orders.v1.OrderCreated";
    }

    String add(Fields command, Writer event, Instant now) {
      require(status == DRAFT, "WRONG_STATE");
      String sku = command.text(2);
      long quantity = command.number(3);
      require(quantity > 0 && !sku.isEmpty(), "INVALID");
      long inLine = quantity;
      int at = 0;
      while (at < lines.size() && !lines.get(at).sku.equals(sku)) {
        at++;
      }
      if (at < lines.size()) {
        inLine = Math.addExact(inLine, lines.get(at).quantity);
        lines.set(at, new Line(sku, inLine, PRICE));
      } else {
        lines.add(new Line(sku, inLine, PRICE));
      }
      updated = time(now);
      event.text(3, sku).number(4, quantity).number(5, inLine);
      event.bytes(6, money(PRICE)).bytes(7, money(Math.multiplyExact(inLine, PRICE))).bytes(8, money(total()));
      return "holdfast.orders.v1.ItemAdded";
    }

    String place(Fields command, Writer event, Instant now) {
      require(status == DRAFT, "WRONG_STATE");
      require(!lines.isEmpty(), "EMPTY_ORDER");
      status = PLACED;
      paymentMethod = command.text(2);
      address = command.text(3);
      updated = time(now);
      event.text(3, customer);
      for (Line line : lines) {
        byte[] subtotal = money(Math.multiplyExact(line.quantity, line.price));
        Writer to = new Writer().text(1, line.sku).number(2, line.quantity);
        event.bytes(4, to.bytes(3, money(line.price)).bytes(4, subtotal).done());
      }
      event.bytes(5, money(total())).text(6, paymentMethod).text(7, address);
      return "holdfast.orders.v1.OrderPlaced";
    }

    private long total() {
      long total = 0;
      for (Line line : lines) {
        total = Math.addExact(total, Math.multiplyExact(line.quantity, line.price));
      }
      return total;
    }

    private byte[] money(long minor) {
      return new Writer().number(1, minor).text(2, currency).done();
    }

    private static void require(boolean holds, String rejection) {
      if (!holds) {
        throw new IllegalStateException("the benchmark's work has no rejections: " + rejection);
      }
    }
  }

  private static byte[] time(Instant at) {
    return new Writer().number(1, at.getEpochSecond()).number(2, at.getNano() / 1_000_000 * 1_000_000).done();
  }

  /** Writes protobuf; a field of its default value is left out. */
  private static final class Writer {
    private final ByteArrayOutputStream out = new ByteArrayOutputStream(128);

    Writer number(int field, long value) {
      if (value != 0) {
        varint((long) field << 3);
        varint(value);
      }
      return this;
    }

    Writer bytes(int field, byte[] value) {
      if (value.length > 0) {
        varint((long) field << 3 | 2);
        varint(value.length);
        out.write(value, 0, value.length);
      }
      return this;
    }

    Writer text(int field, String value) {
      return bytes(field, value.getBytes(StandardCharsets.UTF_8));
    }

    byte[] done() {
      return out.toByteArray();
    }

    private void varint(long value) {
      while ((value & ~0x7fL) != 0) {
        out.write((int) (value & 0x7f | 0x80));
        value >>>= 7;
      }
      out.write((int) value);
    }
  }

  /** Reads protobuf: varints and what has a length. */
  private static final class Fields {
    private static final JsonFactory JSON = new JsonFactory();
    private static final Map<String, Integer> FIELDS =
        Map.of("orderId", 1, "customerId", 2, "currency", 3, "sku", 2, "quantity", 3, "paymentMethod", 2, "addressId", 3);

    private final byte[] from;
    private int at;
    private int start;
    private int end;
    private final List<Object[]> all = new ArrayList<>(0);
    int number;
    long value;

    Fields(byte[] from) {
      this.from = from;
    }

    /** With all fields read; unknown ones are kept beside the others. */
    static Fields of(byte[] from) {
      Fields fields = new Fields(from);
      while (fields.next()) {
        fields.all.add(new Object[] {fields.number, fields.end > fields.start ? fields.bytes() : (Object) fields.value});
      }
      return fields;
    }

    /** The same of a command that is written as JSON. */
    static Fields ofJson(byte[] from) {
      Fields fields = new Fields(from);
      try (JsonParser json = JSON.createParser(from)) {
        json.nextToken();
        for (String name = json.nextFieldName(); name != null; name = json.nextFieldName()) {
          Integer field = FIELDS.get(name);
          String value = json.nextTextValue();
          if (field == null || value == null) {
            throw new IllegalArgumentException("not the JSON of a command, at " + name);
          }
          // Numbers of 64 bits are texts.
          Object one = name.equals("quantity") ? (Object) Long.valueOf(value) : value.getBytes(StandardCharsets.UTF_8);
          fields.all.add(new Object[] {field, one});
        }
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      return fields;
    }

    boolean next() {
      if (at >= from.length) {
        return false;
      }
      long tag = varint();
      number = (int) (tag >>> 3);
      start = end = at;
      value = varint();
      switch ((int) (tag & 7)) {
        case 0 -> start = end = at;
        case 2 -> {
          start = at;
          end = at = Math.addExact(at, Math.toIntExact(value));
          if (value < 0 || end > from.length) {
            throw new IllegalArgumentException("cut short");
          }
        }
        default -> throw new IllegalArgumentException("wire type " + (tag & 7));
      }
      return true;
    }

    byte[] bytes() {
      return java.util.Arrays.copyOfRange(from, start, end);
    }

    String text() {
      return new String(from, start, end - start, StandardCharsets.UTF_8);
    }

    String text(int field) {
      for (Object[] one : all) {
        if ((int) one[0] == field && one[1] instanceof byte[] bytes) {
          return new String(bytes, StandardCharsets.UTF_8);
        }
      }
      return "";
    }

    long number(int field) {
      for (Object[] one : all) {
        if ((int) one[0] == field && one[1] instanceof Long number) {
          return number;
        }
      }
      return 0;
    }

    private long varint() {
      long value = 0;
      for (int shift = 0; shift < 64; shift += 7) {
        byte next = from[at++];
        value |= (long) (next & 0x7f) << shift;
        if (next >= 0) {
          return value;
        }
      }
      throw new IllegalArgumentException("a varint without an end");
    }
  }
}
