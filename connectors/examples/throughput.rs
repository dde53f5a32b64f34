use std::sync::Arc; use std::time::Instant;
use arrow::datatypes::*;
use tidemill_connectors::*;
use tidemill_connectors::conformance::*;
use tidemill_core::source::*;
async fn drain(source: &dyn Source) -> usize {
    let context = SourceContext { batch_rows: 8192, ..source_context(1, 8192) };
    let mut e = source.enumerator(&context).unwrap(); let mut r = source.reader(&context).unwrap(); let mut rows = 0;
    loop { match r.next().await.unwrap() {
        SourceEvent::Batch{records,..} => rows += records.num_rows(),
        SourceEvent::NeedsSplit => match e.next_split(0).await.unwrap() { SplitAssignment::Split(s) => r.add_splits(vec![s]).await.unwrap(), _ => return rows },
        _ => {} } }
}
fn main() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    let f = |n: &str, t: DataType| Field::new(n, t, true);
    let run = |name: &str, source: Arc<dyn Source>, bytes: u64| {
        let t = Instant::now(); let rows = rt.block_on(async { drain(&*source).await }); let s = t.elapsed().as_secs_f64();
        println!("{name}: {rows} rows {:.3}s {:.1} M rows/s {:.0} MB/s", s, rows as f64/s/1e6, bytes as f64/s/1e6);
    };
    for (name, t, extra) in [("i64", DataType::Int64, vec![]), ("i64 seq", DataType::Int64, vec![("fields.a.kind","sequence"),("fields.a.start","0")]), ("i64 0..1000", DataType::Int64, vec![("fields.a.min","0"),("fields.a.max","999")]), ("f64", DataType::Float64, vec![]), ("str10", DataType::Utf8, vec![("fields.a.length","10")])] {
        let mut o = vec![("connector","datagen"),("number-of-rows","100000000")]; o.extend(extra);
        run(name, source(Options::new(o), Arc::new(Schema::new(vec![f("a", t)])), &TableContext::new("x")).unwrap(), 0);
    }
    let path = std::env::args().nth(1).unwrap(); 
    let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema = Arc::new(Schema::new(vec![f("i", DataType::Int64), f("s", DataType::Utf8), f("d", DataType::Float64), f("t", ts), f("p", DataType::Decimal128(10,2))]));
    let gen_rows = source(Options::new([("connector","datagen"),("number-of-rows","5000000"),("fields.i.min","0"),("fields.s.length","12"),("fields.d.min","0"),("fields.d.max","1000"),("fields.t.kind","sequence"),("fields.t.start","2026-01-01T00:00:00")]), schema.clone(), &TableContext::new("x")).unwrap();
    for format in ["csv", "json", "parquet", "arrow"] {
        let dir = format!("{path}/{format}");
        let o = || Options::new([("connector","filesystem"),("path",dir.as_str()),("format",format)]);
        let s = sink(o(), schema.clone(), &TableContext::new("x")).unwrap();
        let t = Instant::now();
        let committer = s.prepare().unwrap();
        rt.block_on(async {
            let mut w = s.writer(&sink_context(0,1,schema.clone())).unwrap();
            let context = source_context(1, 8192);
            let mut e = gen_rows.enumerator(&context).unwrap(); let mut r = gen_rows.reader(&context).unwrap();
            loop { match r.next().await.unwrap() {
                SourceEvent::Batch{records,..} => w.write(tidemill_core::batch::Batch::append(records)).await.unwrap(),
                SourceEvent::NeedsSplit => match e.next_split(0).await.unwrap() { SplitAssignment::Split(s) => r.add_splits(vec![s]).await.unwrap(), _ => break },
                _ => {} } }
            committer.commit(w.prepare_commit(None).await.unwrap()).await.unwrap(); committer.finish().await.unwrap();
        });
        println!("write {format} {:.3}s", t.elapsed().as_secs_f64());
        let bytes: u64 = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        run(format, source(o(), schema.clone(), &TableContext::new("x")).unwrap(), bytes);
        if format == "csv" {
            let raw = Options::new([("connector","filesystem"),("path",dir.as_str()),("format","raw")]);
            run("raw", source(raw, Arc::new(Schema::new(vec![f("l", DataType::Utf8)])), &TableContext::new("x")).unwrap(), bytes);
        }
    }
}
