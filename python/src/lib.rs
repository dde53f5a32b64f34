//! `tidemill._native`: the thin shell between Python and the facade.
//!
//! It runs a query without the interpreter's lock, hands the rows on through the Arrow PyCapsule interface without a copy, and
//! turns an error into `TidemillError`. What the names mean to a Python user stands in `tidemill/_native.pyi`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::Field;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::error::PyArrowResult;
use pyo3_arrow::ffi::{ArrayIterator, to_schema_pycapsule, to_stream_pycapsule};
use tidemill::Rows;

create_exception!(tidemill, TidemillError, PyException, "What went wrong; kind says what you can do, hint how.");

/// The extension module, named by the library's name in the manifest.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{Table, TidemillError, sql};

    #[allow(non_upper_case_globals)]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Runs one query over bounded inputs and returns all its rows.
#[pyfunction]
fn sql(py: Python<'_>, query: &str) -> PyResult<Table> {
    match py.detach(|| tidemill::sql(query)) {
        Ok(rows) => Ok(Table(rows)),
        Err(error) => Err(raised(py, &error)?),
    }
}

/// The rows of a query; whatever reads Arrow reads it, as often as it likes.
#[pyclass(frozen, module = "tidemill")]
struct Table(Rows);

#[pymethods]
impl Table {
    #[getter]
    fn column_names(&self) -> Vec<&str> {
        self.0.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    fn __len__(&self) -> usize {
        self.0.batches.iter().map(|batch| batch.num_rows()).sum()
    }

    fn __repr__(&self) -> String {
        format!("<tidemill.Table: {} rows of {}>", self.__len__(), self.column_names().join(", "))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyArrowResult<Bound<'py, PyCapsule>> {
        to_schema_pycapsule(py, self.0.schema.as_ref())
    }

    /// A fresh stream over the same columns. A stream of Arrow's C interface carries a batch as one struct array.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyArrowResult<Bound<'py, PyCapsule>> {
        let schema = &self.0.schema;
        let row = Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
        let batches = self.0.batches.clone();
        let structs = batches.into_iter().map(|batch| Ok(Arc::new(StructArray::from(batch)) as ArrayRef));
        to_stream_pycapsule(py, Box::new(ArrayIterator::new(structs, row.into())), requested_schema)
    }
}

/// `error` as Python raises it, with its kind and hint as attributes.
fn raised(py: Python<'_>, error: &tidemill::Error) -> PyResult<PyErr> {
    let raised = TidemillError::new_err(error.message().to_owned());
    let value = raised.value(py);
    value.setattr("kind", format!("{:?}", error.kind()).to_lowercase())?;
    value.setattr("hint", error.hint())?;
    if let Some(hint) = error.hint() {
        value.call_method1("add_note", (hint,)).ok(); // shown below the message, from Python 3.11 on
    }
    Ok(raised)
}
