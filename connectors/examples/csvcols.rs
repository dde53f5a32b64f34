use std::sync::Arc; use std::time::Instant;
use arrow::datatypes::*;
use tidemill_connectors::*;
use tidemill_connectors::conformance::*;
use tidemill_core::source::*;
fn main() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    let f = |n: &str, t: DataType| Field::new(n, t, true);
    let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema = Arc::new(Schema::new(vec![f("i", DataType::Int64), f("s", DataType::Utf8), f("d", DataType::Float64), f("t", ts), f("p", DataType::Decimal128(10,2))]));
    let dir = std::env::args().nth(1).unwrap();
    let s = source(Options::new([("connector","filesystem"),("path",dir.as_str()),("format","csv")]), schema, &TableContext::new("x")).unwrap();
    for p in [vec![], vec![0], vec![1], vec![2], vec![3], vec![4]] {
        let context = SourceContext { projection: Some(p.clone().into()), ..source_context(1, 8192) };
        let t = Instant::now();
        rt.block_on(async {
            let mut e = s.enumerator(&context).unwrap(); let mut r = s.reader(&context).unwrap();
            loop { match r.next().await.unwrap() {
                SourceEvent::Batch{..} => {},
                SourceEvent::NeedsSplit => match e.next_split(0).await.unwrap() { SplitAssignment::Split(s) => r.add_splits(vec![s]).await.unwrap(), _ => break },
                _ => {} } }
        });
        println!("{p:?} {:.3}", t.elapsed().as_secs_f64());
    }
}
